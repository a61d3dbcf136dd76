# Brier score and AUC by riskRegression, Brier score by pec, Uno's C by survival: censoring by Kaplan-Meier.
# Run here: Rscript ipcw.R. Writes ipcw_patients.csv and ipcw_values.csv; the tests only read.
# Times are not tied: R weights an event by G just before it, scikit-survival and fracsurv by G at it, and the
# two differ only where an event and a censoring share a time. The same patients serve as training fold.
library(survival)
library(prodlim)
suppressPackageStartupMessages(library(riskRegression))
suppressPackageStartupMessages(library(pec))

set.seed(20250602)
n <- 120
risk <- rnorm(n)
died <- rexp(n, 0.1 * exp(0.8 * risk))
left <- runif(n, 1, 25)
d <- data.frame(event = as.integer(died <= left), time = pmin(died, left), risk = risk)
stopifnot(!anyDuplicated(d$time))
times <- c(1, 2, 4, 6, 9)
surv <- exp(-outer(exp(0.8 * d$risk), 0.1 * times))  # the probabilities judged: those that made the data

score <- Score(
  list(model = 1 - surv), formula = Hist(time, event) ~ 1, data = d, times = times, cens.model = "km",
  metrics = c("auc", "brier"), se.fit = FALSE, null.model = FALSE
)
by_pec <- pec(
  list(model = cbind(1, surv)), formula = Surv(time, event) ~ 1, data = d, times = c(0, times), exact = FALSE,
  start = 0, cens.model = "marginal", verbose = FALSE, reference = FALSE
)
uno <- concordance(Surv(time, event) ~ risk, d, reverse = TRUE, timewt = "n/G2")
harrell <- concordance(Surv(time, event) ~ risk, d, reverse = TRUE)
values <- rbind(
  data.frame(what = "auc", time = score$AUC$score$times, value = score$AUC$score$AUC),
  data.frame(what = "brier", time = score$Brier$score$times, value = score$Brier$score$Brier),
  data.frame(what = "brier_pec", time = times, value = by_pec$AppErr$model[-1]),
  data.frame(what = c("uno", "harrell"), time = NA, value = c(uno$concordance, harrell$concordance))
)
write.csv(format(d, digits = 15, trim = TRUE), "ipcw_patients.csv", row.names = FALSE, quote = FALSE)
write.csv(format(values, digits = 15, trim = TRUE), "ipcw_values.csv", row.names = FALSE, quote = FALSE)
