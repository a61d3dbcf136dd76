# External validation by survival, riskRegression and base R: a model with a constant baseline hazard, judged on the
# patients of ipcw.R. Calibration slope by coxph on the log hazard, observed / expected over all follow-up by Poisson
# regression with the cumulative hazard as its offset, index of prediction accuracy by Score (its null model is the
# Kaplan-Meier curve of the patients judged); recalibration by Breslow's baseline, and by coxph with survfit.
# Run here, after ipcw.R: Rscript validation.R. Writes validation_values.csv; the tests only read.
library(survival)
library(prodlim)
suppressPackageStartupMessages(library(riskRegression))

d <- read.csv("ipcw_patients.csv")
d$risk <- 0.9 * d$risk  # the model judged
times <- c(2, 4)
expected <- 0.12 * d$time * exp(d$risk)  # cumulative hazard until the end of each patient's follow-up
slope <- coxph(Surv(time, event) ~ risk, d, ties = "efron")
ratio <- glm(event ~ offset(log(expected)), poisson, d, control = glm.control(epsilon = 1e-14, maxit = 100))
error <- sqrt(diag(vcov(ratio)))
surv <- exp(-outer(exp(d$risk), 0.12 * times))
score <- Score(
  list(model = 1 - surv), formula = Hist(time, event) ~ 1, data = d, times = times, cens.model = "km",
  metrics = "brier", summary = "ipa", se.fit = FALSE, null.model = TRUE
)
brier <- as.data.frame(score$Brier$score)
# Recalibrated baseline (slope 1), and slope with baseline: survival of a patient with risk 0.3.
at <- data.frame(risk = 0.3)
fitted <- coxph(Surv(time, event) ~ risk, d, ties = "efron")
mended <- summary(survfit(fitted, newdata = at, stype = 2, ctype = 1), times)
o <- d[order(d$time), ]
at_risk <- rev(cumsum(rev(exp(o$risk))))
breslow <- stepfun(o$time, c(0, cumsum(o$event / at_risk)))
values <- rbind(
  data.frame(what = c("slope", "slope_low", "slope_high"), time = NA,
             value = c(coef(slope), confint(slope))),
  data.frame(what = c("ratio", "ratio_low", "ratio_high"), time = NA,
             value = exp(coef(ratio) + c(0, qnorm(0.025), qnorm(0.975)) * error)),
  data.frame(what = "brier", time = times, value = brier$Brier[brier$model == "model"]),
  data.frame(what = "brier_null", time = times, value = brier$Brier[brier$model == "Null model"]),
  data.frame(what = "ipa", time = times, value = brier$IPA[brier$model == "model"]),
  data.frame(what = "baseline", time = times, value = exp(-breslow(times) * exp(at$risk))),
  data.frame(what = "slope_and_baseline", time = times, value = mended$surv)
)
write.csv(format(values, digits = 15, trim = TRUE), "validation_values.csv", row.names = FALSE, quote = FALSE)
