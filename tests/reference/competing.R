# Cumulative incidence by cmprsk on a public data set, survival::flchain (7,874 people of Olmsted County; death of the
# circulation against any other, `chapter`), which scikit-survival brings too, so that no patient stands here. Then, for
# drawn patients: AUC and Brier score for competing risks by riskRegression::Score, the concordance of Wolbers et al.
# (2014) by pec::cindex, absolute risk by riskRegression::CSC; censoring by Kaplan-Meier.
# Run here: Rscript competing.R. Writes competing_patients.csv and competing_values.csv; the tests only read.
# Drawn times are not tied, as in ipcw.R and for its reason; flchain's, in days, are.
library(survival)
library(prodlim)
library(cmprsk)
suppressPackageStartupMessages(library(riskRegression))
suppressPackageStartupMessages(library(pec))

f <- survival::flchain
cause <- ifelse(f$death == 0, 0, ifelse(!is.na(f$chapter) & f$chapter == "Circulatory", 1, 2))
days <- c(30, 365, 1826, 3652, 4748, 5166)
incidence <- cuminc(f$futime, cause)
at <- timepoints(incidence, days)
by_survfit <- summary(survfit(Surv(futime, factor(cause)) ~ 1, f), times = days)$pstate  # Aalen-Johansen as well
stopifnot(all(abs(by_survfit[, 2:3] - t(at$est)) < 1e-12))
values <- NULL
for (k in 1:2) {
  values <- rbind(
    values,
    data.frame(what = paste0("flchain_", k), time = days, x = NA, value = unname(at$est[k, ])),
    data.frame(what = paste0("flchain_variance_", k), time = days, x = NA, value = unname(at$var[k, ]))
  )
}

set.seed(20251128)
n <- 200
x <- rnorm(n)
first <- rexp(n, 0.08 * exp(0.8 * x))
second <- rexp(n, 0.06 * exp(0.4 * x))
left <- runif(n, 1, 25)
time <- pmin(first, second, left)
d <- data.frame(event = ifelse(time == first, 1, ifelse(time == second, 2, 0)), time = time, x = x)
stopifnot(!anyDuplicated(d$time))
times <- c(1, 2, 4, 6, 9)
both <- 0.08 * exp(0.8 * x) + 0.06 * exp(0.4 * x)
judged <- 0.08 * exp(0.8 * x) / both * (1 - exp(-outer(both, times)))  # those that made the data
score <- Score(
  list(model = judged), formula = Hist(time, event) ~ 1, data = d, times = times, cause = 1, cens.model = "km",
  metrics = c("auc", "brier"), se.fit = FALSE, null.model = FALSE
)
values <- rbind(
  values,
  data.frame(what = "auc", time = score$AUC$score$times, x = NA, value = score$AUC$score$AUC),
  data.frame(what = "brier", time = score$Brier$score$times, x = NA, value = score$Brier$score$Brier)
)
for (tau in c(4, 9, 16)) {
  c_index <- cindex(
    list(model = matrix(x, ncol = 1)), formula = Hist(time, event) ~ 1, data = d, cause = 1, eval.times = tau,
    cens.model = "marginal", verbose = FALSE
  )
  values <- rbind(values, data.frame(what = "wolbers", time = tau, x = NA, value = c_index$AppCindex$model))
}
fitted <- CSC(Hist(time, event) ~ x, d)
for (k in 1:2) {
  beta <- unname(coef(fitted$models[[k]]))
  values <- rbind(values, data.frame(what = paste0("beta_", k), time = NA, x = NA, value = beta))
}
new <- data.frame(x = c(-2, 0, 1.5))
risks <- predict(fitted, new, times = times, cause = 1, product.limit = FALSE)$absRisk
for (i in 1:3) {
  values <- rbind(values, data.frame(what = "absolute_risk", time = times, x = new$x[i], value = risks[i, ]))
}
write.csv(format(d, digits = 15, trim = TRUE), "competing_patients.csv", row.names = FALSE, quote = FALSE)
write.csv(format(values, digits = 15, trim = TRUE), "competing_values.csv", row.names = FALSE, quote = FALSE)
