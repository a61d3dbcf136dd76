# Cox partial likelihood, its gradient, concordance and Breslow survival, by R's survival, at fixed log hazards.
# Run here: Rscript cox.R. Writes cox_patients.csv, cox_values.csv and cox_survival.csv; the tests only read.
library(survival)

set.seed(20250601)
n <- 90
risk <- round(rnorm(n), 1)  # tied risks
died <- rexp(n, 0.1 * exp(0.8 * risk))
left <- runif(n, 2, 20)
d <- data.frame(
  event = as.integer(died <= left), time = ceiling(pmin(died, left)),  # tied times, events with censorings
  risk = risk, strata = sample(1:3, n, replace = TRUE), weights = round(runif(n, 0.5, 3), 2)
)

values <- data.frame()
for (ties in c("efron", "breslow")) for (strata in c(FALSE, TRUE)) for (weights in c(FALSE, TRUE)) {
  formula <- if (strata) Surv(time, event) ~ risk + strata(strata) else Surv(time, event) ~ risk
  w <- if (weights) d$weights else rep(1, n)
  # iter.max = 0 leaves the coefficient of `risk` at 1, so the linear predictor is `risk` itself (centred).
  fit <- suppressWarnings(coxph(formula, d, weights = w, ties = ties, init = 1, iter.max = 0))
  values <- rbind(values, data.frame(ties, strata, weights, loglik = fit$loglik[1]))
  # A martingale residual is the derivative of the log likelihood by the patient's log hazard (over the weight).
  d[[paste("residual", ties, as.integer(strata), as.integer(weights), sep = "_")]] <- residuals(fit, "martingale")
}
count <- concordance(Surv(time, event) ~ risk, d, reverse = TRUE)
values <- rbind(values, data.frame(
  ties = c("concordant", "discordant", "tied_risk", "c_index"), strata = NA, weights = NA,
  loglik = c(count$count[c("concordant", "discordant", "tied.x")], count$concordance)
))
names(values)[c(1, 4)] <- c("what", "value")

fit <- coxph(Surv(time, event) ~ risk, d, ties = "breslow", init = 1, iter.max = 0)
new <- data.frame(risk = c(-2, 0, 1.5))
surv <- summary(survfit(fit, newdata = new, ctype = 1, stype = 2), times = c(0.5, 1:15))
survival <- data.frame(time = surv$time, surv$surv)
names(survival)[-1] <- paste0("risk_", new$risk)

write.csv(d, "cox_patients.csv", row.names = FALSE)
write.csv(format(values, digits = 15, trim = TRUE), "cox_values.csv", row.names = FALSE, quote = FALSE)
write.csv(survival, "cox_survival.csv", row.names = FALSE)
